"""For tests, ours and users': a pytest plugin, hypothesis strategies, counterexamples, mutants of specs."""
