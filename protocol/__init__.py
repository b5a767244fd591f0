"""What crosses the wire: typed messages, their bytes, and what each method may send."""
