"""What makes a gain real: records, statistics, the decision procedure and static integrity checks.

Everything here is pure: no Django, no torch, no files, no clock, no randomness without a fixed seed.

    records    what goes in and comes out: Rule, PairedScore, NoiseFloor, Finding, Evidence, Verdict
    stats      the arithmetic: e-values, intervals, shrinkage, the noise floor, campaign bars (needs numpy)
    rules      decide(evidence, rule), the one place where a verdict is made
    combine    measurements beside each other: interactions, ablations, promises kept; no part of a verdict
    integrity  findings in a change before it runs: paths and syntax tree

`records`, `rules`, `combine` and `integrity` import neither numpy nor scipy, so the web process may load them.
"""
