"""The LaMP benchmark: records, tasks, files, metrics, and the miniature world."""
