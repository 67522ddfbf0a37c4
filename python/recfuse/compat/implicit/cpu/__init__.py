"""The models whose factors are NumPy's, which all of them are here."""
