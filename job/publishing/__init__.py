"""Parts of the publish stage: what may be replaced, the card, the folder, the Hub, and the comparison of answers."""
