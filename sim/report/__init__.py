"""From a run folder to tables, pictures and the report."""
