"""Large files over several connections each: resumed, tried again, and hashed on the way."""
