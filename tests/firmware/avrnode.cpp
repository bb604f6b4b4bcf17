// An Arduino Uno in simavr: runs a sketch, gives it sensors, and carries its serial line.
//
//     avrnode FIRMWARE.elf --trace TRACE.csv --seconds N [--script FILE]   flat out, to stdout
//     avrnode FIRMWARE.elf --trace TRACE.csv --pty                         in real time, on a pty
//
// `--part NAME@PLACE`, as often as there are parts, attaches the emulated part of that folder to a pin
// (a number, A0 is 14) or to an address of the I2C bus (0x44).
//
// A flat-out run ends with `reset MS` for each reset by the watchdog, and with `stack N at PC`: the
// lowest address that the stack reached, and where.
//
// The trace has lines `ms,A0,A1,A2,swing,temperature,humidity` in mV, mV, mV, mV, 0.1 degrees and
// 0.1 %; each holds from its time on, and the last for ever. `swing` is added to and taken off A2
// from one conversion to the next. A battery of 3.8 V is at A3. Temperature and humidity are those of
// the parts on digital pins; outputs are pins 5 and 7. The script has lines `ms text`: what is sent to
// the node, and when; `ms hang` makes it hang until its watchdog resets it, and so does SIGUSR1;
// `ms part PLACE QUANTITY=VALUE` and `ms part PLACE EVENT` are for an emulated part, which has what it
// was given instead of the trace. With --pty the name of the line is printed first. A pty has no DTR,
// so opening it does not reset the node.
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_adc.h>
#include <simavr/avr_ioport.h>
#include <simavr/avr_twi.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_irq.h>
#include <simavr/sim_time.h>

#include "parts.h"

#define TRACE_MAX 4096
#define QUEUE 4096
#define RESETS_MAX 64

static struct { long ms, value[6]; } trace[TRACE_MAX];
static int trace_len, trace_at;
static char *script_line[1024];
static long script_ms[1024];
static int script_len, script_at;

static avr_t *avr;
static avr_irq_t *adc[6], *uart_in;
static int upward;
static unsigned char queue[QUEUE];
static unsigned queue_head, queue_len;
static int may_send = 1;
static int pty = -1;
static unsigned lowest = 0xFFFF, lowest_at;

// ---- emulated parts -----------------------------------------------------------------------------

static const int PINS = 20, ADDRESSES = 128;
static emulated::Part *at_pin[PINS], *at_address[ADDRESSES];

static emulated::Part **place(const char *text) {
  const bool bus = !strncmp(text, "0x", 2);
  const long number = strtol(text, NULL, 0);
  if (number < 0 || number >= (bus ? ADDRESSES : PINS)) exit(fprintf(stderr, "%s is no place\n", text));
  return bus ? &at_address[number] : &at_pin[number];
}

static void attach(char *text) {
  char *at = strchr(text, '@');
  if (!at) exit(fprintf(stderr, "%s has no place\n", text));
  *at++ = 0;
  *place(at) = emulated::make(text);
  if (!*place(at)) exit(fprintf(stderr, "%s is no part\n", text));
}

static avr_irq_t *pin_irq(int pin) {
  return avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ(pin < 8 ? 'D' : 'B'), pin % 8);
}

// The level of a pin while nothing happens: a line on which a part answers is high.
static void idle(int pin) {
  uint8_t spans[90];
  emulated::Part *part = at_pin[pin];
  const bool answers = part && part->answer(spans);
  if (answers || (part && part->given())) avr_raise_irq(pin_irq(pin), answers || part->level());
}

// `PLACE QUANTITY=VALUE ...` or `PLACE EVENT`.
static void tell_part(char *line) {
  char *word = strtok(line, " \n");
  emulated::Part *part = *place(word);
  if (!part) exit(fprintf(stderr, "nothing is at %s\n", word));
  while ((word = strtok(NULL, " \n"))) {
    char *value = strchr(word, '=');
    if (value) *value++ = 0;
    if (value) part->set(word, atof(value));
    else part->event(word);
  }
  for (int pin = 0; pin < 14; pin++) idle(pin);
}

// -------------------------------------------------------------------------------------------------

static long now_ms(void) { return (long)(avr->cycle / (avr->frequency / 1000)); }

static const long *values(void) {
  while (trace_at + 1 < trace_len && trace[trace_at + 1].ms <= now_ms()) trace_at++;
  return trace[trace_at].value;
}

// Before each conversion the voltages are those of this moment.
static void converting(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)value;
  (void)param;
  const long *v = values();
  upward = !upward;
  avr_raise_irq(adc[0], v[0]);
  avr_raise_irq(adc[1], v[1]);
  avr_raise_irq(adc[2], v[2] + (upward ? v[3] / 2 : -v[3] / 2));
  avr_raise_irq(adc[3], 3800);
  for (int channel = 0; channel < 6; channel++) {
    emulated::Part *part = at_pin[14 + channel];
    if (part && part->given()) avr_raise_irq(adc[channel], part->off() ? 0 : (uint32_t)(part->millivolts(5000) + 0.5));
  }
}

// ---- parts on one wire ---------------------------------------------------------------------------

// The pin whose part answers, and its answer.
static int answering = -1;
static uint8_t answer_us[90];
static int answer_edges, answer_edge, answer_level, outputs;
static avr_cycle_count_t low_since[PINS];

static avr_cycle_count_t answer_step(avr_t *a, avr_cycle_count_t when, void *) {
  if (answer_edge == answer_edges) {
    avr_raise_irq(pin_irq(answering), 1);
    return 0;
  }
  answer_level = !answer_level;
  avr_raise_irq(pin_irq(answering), answer_level);
  return when + avr_usec_to_cycles(a, answer_us[answer_edge++]);
}

// A start pulse is an output for a millisecond at least, and then an input.
static void direction(avr_irq_t *, uint32_t value, void *param) {
  const int base = (int)(intptr_t)param;
  for (int bit = 0; bit < 8 && base + bit < 14; bit++) {
    const int pin = base + bit, now_output = value >> bit & 1, was_output = outputs >> pin & 1;
    if (now_output == was_output) continue;
    outputs ^= 1 << pin;
    if (now_output) {
      low_since[pin] = avr->cycle;
      continue;
    }
    if (!at_pin[pin] || at_pin[pin]->off() || avr->cycle - low_since[pin] < avr_usec_to_cycles(avr, 1000)) continue;
    emulated::Part *part = at_pin[pin];
    if (!part->given()) {
      const long *v = values();
      part->set("temperature", v[4] / 10.0);
      part->set("humidity", v[5] / 10.0);
      part->follow();
    }
    answer_edges = part->answer(answer_us);
    answer_edge = 1;
    if (!answer_edges) continue;
    answering = pin;
    answer_level = 1;
    avr_raise_irq(pin_irq(pin), 1);
    avr_cycle_timer_register_usec(avr, answer_us[0], answer_step, NULL);
  }
}

// ---- the I2C bus ----------------------------------------------------------------------------------

static emulated::Part *selected;
static uint8_t bus_bytes[32];
static int bus_len, bus_at, bus_address, bus_writes;

static void bus_answer(uint8_t what, uint8_t byte) {
  avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_TWI_GETIRQ(0), TWI_IRQ_INPUT), avr_twi_irq_msg(what, bus_address, byte));
}

// What was written goes to the part when it is complete.
static void bus_complete(void) {
  if (selected && bus_writes && bus_len) selected->take(bus_bytes, bus_len, now_ms());
  selected = NULL;
  bus_len = bus_at = 0;
}

static void bus_message(avr_irq_t *, uint32_t value, void *) {
  avr_twi_msg_irq_t message;
  message.u.v = value;
  const uint8_t what = message.u.twi.msg;
  if (what & TWI_COND_STOP) bus_complete();
  if (what & TWI_COND_START) {
    bus_complete();
    bus_address = message.u.twi.addr;
    bus_writes = !(bus_address & 1);
    emulated::Part *part = at_address[bus_address >> 1 & 127];
    if (!part || part->off()) return;
    if (!bus_writes && !part->give(bus_bytes, sizeof bus_bytes, now_ms())) return;
    selected = part;
    bus_answer(TWI_COND_ACK, 1);
  }
  if (selected && what & TWI_COND_WRITE) {
    if (bus_len < (int)sizeof bus_bytes) bus_bytes[bus_len++] = message.u.twi.data;
    bus_answer(TWI_COND_ACK, 1);
  }
  if (selected && what & TWI_COND_READ) bus_answer(TWI_COND_READ, bus_at < 32 ? bus_bytes[bus_at++] : 0xFF);
}

// ---- serial line --------------------------------------------------------------------------------

static void said(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)param;
  const unsigned char byte = value;
  if (pty < 0) {
    putchar(byte);
  } else if (write(pty, &byte, 1) < 0 && errno != EAGAIN && errno != EIO) {
    perror("write");
  }
}

static void xon(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)value;
  (void)param;
  may_send = 1;
}

static void xoff(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  (void)value;
  (void)param;
  may_send = 0;
}

static void feed(const unsigned char *bytes, size_t len) {
  for (size_t i = 0; i < len && queue_len < QUEUE; i++) queue[(queue_head + queue_len++) % QUEUE] = bytes[i];
}

// One byte takes 87 us at 115200 Bd.
static avr_cycle_count_t serial_step(avr_t *a, avr_cycle_count_t when, void *param) {
  (void)param;
  if (queue_len && may_send) {
    const unsigned char byte = queue[queue_head];
    queue_head = (queue_head + 1) % QUEUE;
    queue_len--;
    avr_raise_irq(uart_in, byte);
  }
  return when + avr_usec_to_cycles(a, 87);
}

// ---- hanging ------------------------------------------------------------------------------------

static avr_flashaddr_t hung_at;
static unsigned char healthy[2];
static int hung;
static volatile sig_atomic_t hang_asked;
static long reset_ms[RESETS_MAX];
static int resets;

// The instruction that is next becomes a jump to itself. Interrupts go on where they were on, and do
// not feed the watchdog.
static void hang(void) {
  if (hung) return;
  hung = 1;
  hung_at = avr->pc;
  memcpy(healthy, avr->flash + hung_at, 2);
  memcpy(avr->flash + hung_at, "\xff\xcf", 2);  // rjmp .-2
}

static void ask_to_hang(int number) {
  (void)number;
  hang_asked = 1;
}

// simavr's watchdog resets by a run callback of its own. It has set WDRF then, and left the watchdog
// on at its shortest, as silicon does; what is lost is all timers of the simulation, ours too.
static void was_reset(void) {
  if (hung) memcpy(avr->flash + hung_at, healthy, 2);
  hung = 0;
  if (resets < RESETS_MAX) reset_ms[resets++] = now_ms();
  answer_edge = answer_edges = outputs = 0;
  avr_cycle_timer_register_usec(avr, 87, serial_step, NULL);
}

static void output(avr_irq_t *irq, uint32_t value, void *param) {
  (void)irq;
  if (pty < 0) printf("pin %ld %u\n", (long)param, value & 1);
}

// The node is never asleep on the host's clock: main paces it.
static void no_sleep(avr_t *a, avr_cycle_count_t cycles) {
  (void)a;
  (void)cycles;
}

static void load_trace(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) exit(fprintf(stderr, "%s cannot be read\n", path));
  char line[256];
  while (fgets(line, sizeof line, file) && trace_len < TRACE_MAX) {
    long *v = trace[trace_len].value;
    if (sscanf(line, "%ld,%ld,%ld,%ld,%ld,%ld,%ld", &trace[trace_len].ms, v, v + 1, v + 2, v + 3, v + 4, v + 5) == 7)
      trace_len++;
  }
  fclose(file);
}

static void load_script(const char *path) {
  FILE *file = fopen(path, "r");
  if (!file) exit(fprintf(stderr, "%s cannot be read\n", path));
  char line[512];
  while (fgets(line, sizeof line, file) && script_len < 1024) {
    char *text;
    script_ms[script_len] = strtol(line, &text, 10);
    script_line[script_len++] = strdup(text + 1);
  }
  fclose(file);
}

int main(int argc, char **argv) {
  long seconds = 0;
  int real = 0;
  for (int i = 2; i < argc; i++) {
    if (!strcmp(argv[i], "--trace")) load_trace(argv[++i]);
    else if (!strcmp(argv[i], "--script")) load_script(argv[++i]);
    else if (!strcmp(argv[i], "--seconds")) seconds = atol(argv[++i]);
    else if (!strcmp(argv[i], "--part")) attach(argv[++i]);
    else if (!strcmp(argv[i], "--pty")) real = 1;
  }
  if (argc < 2 || !trace_len || (!real && !seconds)) return fprintf(stderr, "usage: see avrnode.c\n"), 64;
  elf_firmware_t firmware = {};
  if (elf_read_firmware(argv[1], &firmware)) return fprintf(stderr, "%s is no firmware\n", argv[1]), 1;
  avr = avr_make_mcu_by_name("atmega328p");
  avr_init(avr);
  firmware.frequency = 16000000;
  avr_load_firmware(avr, &firmware);
  avr->frequency = 16000000;
  avr->vcc = avr->avcc = avr->aref = 5000;
  avr->sleep = no_sleep;
  avr->log = LOG_ERROR;

  uint32_t flags = 0;
  avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
  flags &= ~(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POLL_SLEEP);
  avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), said, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XON), xon, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUT_XOFF), xoff, NULL);
  uart_in = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
  avr_cycle_timer_register_usec(avr, 87, serial_step, NULL);
  for (int i = 0; i < 6; i++) adc[i] = avr_io_getirq(avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_ADC0 + i);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_OUT_TRIGGER), converting, NULL);
  converting(NULL, 0, NULL);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_TWI_GETIRQ(0), TWI_IRQ_OUTPUT), bus_message, NULL);
  for (int pin = 0; pin < 14; pin++) idle(pin);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('D'), IOPORT_IRQ_DIRECTION_ALL), direction, (void *)0L);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('B'), IOPORT_IRQ_DIRECTION_ALL), direction, (void *)8L);
  avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('D'), 7), output, (void *)7L);

  int slave = -1;
  if (real) {
    char name[128];
    struct termios raw;
    if (openpty(&pty, &slave, name, NULL, NULL)) return perror("openpty"), 1;
    tcgetattr(slave, &raw);
    cfmakeraw(&raw);
    tcsetattr(slave, TCSANOW, &raw);
    fcntl(pty, F_SETFL, O_NONBLOCK);
    printf("%s\n", name);
    fflush(stdout);
  }
  const avr_run_t run = avr->run;
  signal(SIGUSR1, ask_to_hang);
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long ms = 0; !seconds || ms < seconds * 1000; ms++) {
    while (script_at < script_len && script_ms[script_at] <= ms) {
      char *line = script_line[script_at];
      if (!strcmp(line, "hang\n")) hang();
      else if (!strncmp(line, "part ", 5)) tell_part(line + 5);
      else feed((const unsigned char *)script_line[script_at], strlen(script_line[script_at]));
      script_at++;
    }
    if (hang_asked) {
      hang_asked = 0;
      hang();
    }
    if (real) {
      unsigned char bytes[256];
      const ssize_t got = read(pty, bytes, sizeof bytes);
      if (got > 0) feed(bytes, got);
      struct timespec now;
      clock_gettime(CLOCK_MONOTONIC, &now);
      const long ahead = ms * 1000 - (now.tv_sec - start.tv_sec) * 1000000L - (now.tv_nsec - start.tv_nsec) / 1000;
      if (ahead > 0) usleep(ahead);
      if (getppid() == 1) return 0;
    }
    const avr_cycle_count_t until = (avr_cycle_count_t)(ms + 1) * 16000;
    while (avr->cycle < until) {
      const int reset = avr->run != run;
      const int state = avr_run(avr);
      if (reset) was_reset();
      // The deepest that the stack went, over every instruction.
      const unsigned stack = avr->data[R_SPL] | avr->data[R_SPL + 1] << 8;
      if (stack < lowest && stack > 0x100) {
        lowest = stack;
        lowest_at = avr->pc;
      }
      if (state == cpu_Done || state == cpu_Crashed) return fprintf(stderr, "the node crashed\n"), 1;
    }
  }
  fflush(stdout);
  for (int i = 0; i < resets; i++) printf("reset %ld\n", reset_ms[i]);
  printf("stack %u at 0x%x\n", lowest, lowest_at);
  return 0;
}
