"""What the figures on speed and memory are made with. Ratios from one run: absolute figures are of one machine."""
