"""From a model and a task to a draft spec, or to a score for every edge."""
