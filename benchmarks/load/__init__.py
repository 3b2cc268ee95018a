"""What puts load on a server, what the server talks to, and what is read off it meanwhile."""
