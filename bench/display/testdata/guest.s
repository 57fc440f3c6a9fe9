# The guest of this benchmark: a boot sector for a PC. A key flips a block of 16
# by 16 pixels. The key r turns a band of 320 by 64 on and off that moves with
# each tick of the timer, which is set to 200 a second.
#
#	as --32 -o guest.o guest.s && ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o guest.bin guest.o
	.code16
	.globl	_start
_start:
	mov	$0x13, %ax		# 320 by 200, a byte a pixel
	int	$0x10
	mov	$0xa000, %ax
	mov	%ax, %es
	cld
	mov	$0x36, %al		# timer 0, square wave
	out	%al, $0x43
	mov	$0x4e, %al		# 1193182 Hz / 0x174e
	out	%al, $0x40
	mov	$0x17, %al
	out	%al, $0x40
	sti
	mov	$1, %bx			# bl: colour of the block; bh: whether the band moves
	jmp	block

next:
	test	%bh, %bh
	jz	key
	hlt
	inc	%dl
	mov	%dl, %al
	mov	$320*100, %di
	mov	$320*64, %cx
band:
	stosb
	inc	%al
	loop	band
	mov	$1, %ah			# is there a key?
	int	$0x16
	jz	next
key:
	xor	%ax, %ax		# wait for it
	int	$0x16
	cmp	$'r', %al
	jne	flip
	xor	$1, %bh
	jmp	next
flip:
	xor	$0x0e, %bl		# blue to white and back
block:
	mov	%bl, %al
	xor	%di, %di
	mov	$16, %si
row:
	mov	$16, %cx
	rep	stosb
	add	$304, %di
	dec	%si
	jnz	row
	jmp	next

	.org	510
	.word	0xaa55
