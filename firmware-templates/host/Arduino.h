// Enough of Arduino for the generated sketch to run as a process, for tests and simulation.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ET_HOST 1
#define HIGH 1
#define LOW 0
#define INPUT 0
#define OUTPUT 1
#define INPUT_PULLUP 2
#define A0 54
#define A1 55
#define A2 56
#define A3 57
#define A4 58
#define A5 59

unsigned long millis();
unsigned long micros();
void delay(unsigned long ms);
void pinMode(uint8_t pin, uint8_t mode);
int digitalRead(uint8_t pin);
void digitalWrite(uint8_t pin, uint8_t level);
int analogRead(uint8_t pin);
void analogWrite(uint8_t pin, int duty);
void enableLoopWDT();

enum esp_reset_reason_t { ESP_RST_POWERON, ESP_RST_EXT, ESP_RST_SW, ESP_RST_INT_WDT, ESP_RST_TASK_WDT, ESP_RST_WDT,
                          ESP_RST_BROWNOUT };
esp_reset_reason_t esp_reset_reason();

// A property's value that was given in place of what its sensor would measure.
bool et_host_value(uint8_t property, int32_t &value);
// What is left in the battery, in place of what its pin would say.
bool et_host_battery(uint8_t &percent);

// Emulated parts, at a pin or at an address of the I2C bus; `et_host_attach_all` is of the sketch.
namespace emulated { class Part; }
void et_host_attach_all();
void et_host_attach(uint8_t place, bool bus, emulated::Part &part);
emulated::Part *et_host_on_bus(uint8_t address);

struct EspClass {
  void restart();
};
extern EspClass ESP;

class HardwareSerial {
 public:
  void begin(unsigned long) {}
  int available();
  int read();
  size_t write(uint8_t byte);
  void flush() {}
};
extern HardwareSerial Serial;
