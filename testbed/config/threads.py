"""Eight threads: one waits, seven keep a processor's floating-point registers busy."""
import threading


def work(seed):
    value = float(seed)
    while True:
        value = value * 1.0000001 + seed


for seed in range(7):
    threading.Thread(target=work, args=(seed,)).start()
