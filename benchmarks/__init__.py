"""Speed, measured side by side against how others do it: ``python -m benchmarks [name ...]``.

One file per question. Each builds its models on the spot with random weights, which compute as long
as trained ones do, and appends a table with commit and machine to ``RESULTS.md``. The peers are
written as their users run them: same data, epochs, batch size, precision and threads.
"""
