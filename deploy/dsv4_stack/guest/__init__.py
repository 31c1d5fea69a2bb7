"""Code that runs inside containers too: of this package it imports errors alone."""
