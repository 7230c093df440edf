"""What a distilled training says of itself: a table at its start, shares in its log, pictures at intervals."""
