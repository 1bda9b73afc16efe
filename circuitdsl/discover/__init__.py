"""From a model and a task to a draft spec: the search of Wang et al. 2022, section 3, backwards from the logits."""
