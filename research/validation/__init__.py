"""What makes a gain real: records, statistics, the decision procedure and static integrity checks.

Everything here is pure: no Django, no torch, no files, no clock, no randomness without a fixed seed.

    records    what goes in: Rule, PairedScore, NoiseFloor, Finding, Evidence
    outcomes   what comes out: Verdict, MorePairs, WaitForNoise, Pooled
    wire       their JSON
    named      the rules that a project can choose, by name
    stats      the arithmetic: e-values, intervals, shrinkage, campaign bars (needs numpy)
    tails      of the t, binomial and chi-square distributions, in plain Python
    floor      the noise floor, measured and kept fresh (needs numpy)
    rules      decide(evidence, rule), the one place where a verdict is made; the funnel
    reading    what confirm pairs say, runs at their cap included
    fixed      the procedures that read once
    simulate   campaigns whose truth is known (needs numpy)
    looks      every look of an experiment again, from its frozen evidence
    split      a gain taken apart: more steps in the budget, or a better model at equal steps
    combine    measurements beside each other: interactions, ablations, promises kept; no part of a verdict
    integrity  findings in a change before it runs: paths and syntax tree

All others import neither numpy nor scipy, so the web process may load them.
"""
