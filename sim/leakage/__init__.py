"""Measured leakage: what an attacker could learn from the cloud's texts and from adapters.

    canaries  records of random words, put into D_u at set-up, whose text nobody could guess
    measure   exposure of a canary, membership inference by AUC and by true positives at a low
              false-positive rate: pure functions
    texts     a user's group from texts, and which shares are of one user: pure functions
    audit     reads a finished run from both sides and writes leakage.jsonl

sim/report/leakage_tables.py makes the tables, and the sentences that say it plainly.

An audit is the simulator's: it sees devices and server at once, as no party of a run does.
"""
