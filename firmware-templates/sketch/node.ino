// Made by `edgetwin gen-firmware`; see BUILD.md. All of it is in the other files.
#include <Arduino.h>

extern void et_setup();
extern void et_loop();

void setup() { et_setup(); }

void loop() { et_loop(); }
