"""The demo: a corpus of real text from the installation itself."""
