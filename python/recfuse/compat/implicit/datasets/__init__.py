"""implicit's downloads; recfuse downloads nothing on its own, so these only say so."""
