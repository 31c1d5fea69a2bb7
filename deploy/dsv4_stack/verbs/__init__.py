"""The verbs of `dsv4`: each module says what it takes and what it does, in terms of the modules above it."""
