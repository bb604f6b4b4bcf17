// What differs between compilers: text in flash, and nothing else.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// Kept out of its callers, so that its frame is on the stack only while it runs: inlined into one
// loop, all frames together are more than a small board has.
#define ET_ALONE __attribute__((noinline))

#ifdef __AVR__
#include <avr/pgmspace.h>
#define ET_FLASH PROGMEM
#define ET_TEXT(text) PSTR(text)
#define et_flash_byte(at) pgm_read_byte(at)
#define et_flash_copy(to, from, len) memcpy_P(to, from, len)
#define et_flash_compare(ram, flash) strcmp_P(ram, flash)
#define et_flash_compare_n(ram, flash, len) strncmp_P(ram, flash, len)
#define et_flash_len(flash) strlen_P(flash)
#else
#define ET_FLASH
#define ET_TEXT(text) (text)
#define et_flash_byte(at) (*reinterpret_cast<const uint8_t *>(at))
#define et_flash_copy(to, from, len) memcpy(to, from, len)
#define et_flash_compare(ram, flash) strcmp(ram, flash)
#define et_flash_compare_n(ram, flash, len) strncmp(ram, flash, len)
#define et_flash_len(flash) strlen(flash)
#endif
