"""What happened, counted: tables of what there is to count, the counts, and how they are shown."""
