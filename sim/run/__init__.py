"""Running an experiment: set up, simulate, resume, estimate."""
