/* What the threads of this program do. Each kind ends in `park` or in a call of its own, and does
   not return. The numbers that are passed and returned keep the compiler from leaving calls out. */
#ifndef KINDS_H
#define KINDS_H

#ifdef __cplusplus
extern "C" {
#endif

/* A function that stays a function of its own. */
#define OWN __attribute__((noinline, noclone))

/* Says that this thread has come where it stays. */
void arrived(void);
/* Stays for ever, in pause(2). */
long park(long number);

/* calls.cpp: functions calling functions. */
void deep(long depth);
void variable(long depth);
void aligned(long depth);
void last_call(long depth);
void unlikely(long depth);
void spinning(long depth);
void through_plt(long depth);
void in_vdso(long depth);
void in_vfork(long depth);
void sorting(long depth);
void coroutine(long depth);

/* signals.cpp: functions interrupted by signals. */
void handler(long depth);
void handler_on_own_stack(long depth);
void nested_handlers(long depth);
void own_trampoline(long depth);
void null_call(long depth);
void wild_call(long depth);
void overflow(long depth);

/* cpp.cpp: what C++ adds. */
void condition(long depth);
void locked(long depth);
void polling(long depth);
void sleeping(long depth);
void reading(long depth);
void callback(long depth);
void catching(long depth);
void cleaning_up(long depth);
void terminating(long depth);

/* framed.cpp: not optimised, with frame pointers. */
void framed(long depth);

/* keeps.c: frame pointers, no unwind tables. */
void keeps_frame_pointer(long depth);

/* bare.c: neither. */
void bare(long depth);

/* trampoline.S */
void __restore_rt(void);

#ifdef __cplusplus
}
#endif
#endif
