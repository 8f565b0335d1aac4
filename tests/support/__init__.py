"""What tests use: users, emulators, terminals, fakes.  No module here holds a test."""
