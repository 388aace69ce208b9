"""From a hospital's archive through the server and back: a thin client with protocols of its own."""
