"""Active-learning rounds: sync -> embed -> fit -> select -> publish, and when to start one."""
