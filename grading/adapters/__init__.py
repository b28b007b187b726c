"""The one way in which probes call a submission, whatever its form; a module for each part."""
