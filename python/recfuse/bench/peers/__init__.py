"""What people use today, each at its best: one file per kind of problem."""
