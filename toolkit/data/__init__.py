"""Reading and checking of images, captions, questions and preference rows. Nothing here imports torch at import."""
