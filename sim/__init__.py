"""The composition root: command line, set-up of a run, Flower simulation, results, report."""
