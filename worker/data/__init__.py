"""Images on their way in: archives to class folders, class folders to batches."""
