# A guest of 512 bytes: paints the screen blue with a white box, writes K to the
# serial console, then shows each key as the colour of the box.
# as --32 -o boot.o boot.S && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o boot boot.o
# fills 320x200 with blue (colour 1), white box, then echoes: each key changes the border box colour to the key's low nibble; writes 'K' to COM1 on start.
.code16
.globl _start
_start:
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%ss
  mov $0x7c00,%sp
  mov $0x13,%ax
  int $0x10
  mov $0xa000,%ax
  mov %ax,%es
  xor %di,%di
  mov $64000,%cx
  mov $1,%al
  cld
  rep stosb
  mov $0x0f,%bl
  call box
  mov $0x3f8,%dx
  mov $'K',%al
  out %al,%dx
  mov $'\n',%al
  out %al,%dx
1: xor %ah,%ah
  int $0x16
  mov %al,%bl
  and $0x0f,%bl
  call box
  mov $0x3f8,%dx
  out %al,%dx
  jmp 1b
box: pusha
  mov $(50*320+80),%di
  mov $100,%bp
2: mov %bl,%al
  mov $160,%cx
  rep stosb
  add $160,%di
  dec %bp
  jnz 2b
  popa
  ret
.org 510
.word 0xaa55
