"""An independent MQTT 3.1.1 and 5.0 conformance suite that speaks raw bytes.

`codec`   bytes of every packet, strict when reading, able to write nonsense
`client`  one connection: waits on events with a deadline, keeps a transcript
`suite`   what a test gets, how tests are registered and run
the rest  the tests, by section of the standard
"""
