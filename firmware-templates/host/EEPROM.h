#pragma once
#include <stdint.h>

// Kept in the file that ET_EEPROM names, if it does.
class EEPROMClass {
 public:
  void begin(unsigned);
  uint8_t read(int at);
  void write(int at, uint8_t byte);
  void commit();
};
extern EEPROMClass EEPROM;
