"""Measured leakage: what an attacker could learn from the cloud's texts and from adapters.

    canaries  random records, put into D_u at set-up, whose text nobody could guess
    measure   exposure of a canary, membership-inference AUC: pure functions
    audit     reads a finished run from both sides and writes leakage.jsonl
    report    tables and the sentence that says it plainly

An audit is the simulator's: it sees devices and server at once, as no party of a run does.
"""
