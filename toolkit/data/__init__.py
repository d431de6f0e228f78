"""Reading and checking of images, captions, questions and preference rows; importing it loads no torch."""
