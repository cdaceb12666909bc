"""Multiple-choice questions: where they come from, how they are put, how they are tokenised."""
