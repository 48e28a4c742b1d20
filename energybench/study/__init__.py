"""Many results: tables, statistics, decisions.

The way of a study's numbers, and what other parts may build on::

    collect.collect(["runs", "my experiment"], uri=None)   -> Collected: results, each run once; problems
    rows.rows(results)                                     -> [Row]: repeats together; label, factors, sample, estimate
    rows.varying(rows)                                     -> {factor: levels}
    quantities.quantity("energy_j"), quantities.per("epoch")  -> Quantity: unit, words, value of a result
    intervals.difference / ratio / paired / interval / holm  -> Difference, Ratio, half widths, adjusted p
    separation.in_question(rows, quantity)                 -> the rows that may be the best; one alone: it is
    effects.comparable(rows)                               -> {(energy source, scope): rows}: no effect mixes two
    effects.effects(rows, "batch", "energy_per_image_j")   -> [Effect]: a level against the reference, matched settings
    effects.scaling(rows), effects.energy_follows_time(rows)  -> speed-up and efficiency; correlation
    decision.decide(results, Question(...))                -> [Decision]: chosen, tied, front, repeats, against
    compare.compare([("A", results), ("B", results)])      -> [Comparison]: pairs, changes, differences, notes
    condition.parse("energy_j +5%")                        -> Condition, to be judged on a comparison
    costs.Rates(price_per_kwh=0.3).of(joules)              -> Cost

`summary` draws the table after a sweep. What the estimates mean: docs/deciding.md.
"""
