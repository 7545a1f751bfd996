"""What holds the repository itself together: versions, locks, ranges, and the pages about them."""
