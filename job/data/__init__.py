"""Parts of the stages that deal with rows: what they are read from, what is looked at in them, how alike they are."""
