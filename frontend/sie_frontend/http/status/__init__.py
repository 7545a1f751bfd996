"""What a process says of itself: its facts as JSON, and the page that shows them. It reads, and changes nothing."""
