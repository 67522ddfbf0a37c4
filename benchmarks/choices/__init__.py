"""What docs/choosing.md measures: data sets, models, fusion rules and searches."""
