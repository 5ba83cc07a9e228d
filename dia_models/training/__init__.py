"""What every training needs: recipe, batches, loop, files."""
