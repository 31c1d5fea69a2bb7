"""A look at this machine before anything is touched: every finding at once, each with what mends it."""

from dsv4_stack.doctor.examination import examine
from dsv4_stack.doctor.finding import Finding, Level, raise_for
from dsv4_stack.doctor.port import port_number
from dsv4_stack.doctor.weights import needed_bytes

__all__ = ["Finding", "Level", "examine", "needed_bytes", "port_number", "raise_for"]
