"""How far the folded network is ahead of the published one, and how near to the floor."""
