"""What the service tells its operators: at present the guard of background threads and tasks."""
