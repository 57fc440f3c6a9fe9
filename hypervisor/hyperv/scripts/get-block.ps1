# consort hyper-v protocol 1: get-block

# get-block reads bytes of a file that get-begin made.
function Invoke-Request($a) {
    $f = New-Object System.IO.FileStream (Get-Stored $a.file), ([IO.FileMode]::Open), ([IO.FileAccess]::Read)
    try {
        $f.Position = $a.offset
        $buffer = New-Object byte[] $a.length
        $have = 0
        while ($have -lt $buffer.Length) {
            $n = $f.Read($buffer, $have, $buffer.Length - $have)
            if ($n -eq 0) { Stop-With 'unavailable' ('{0} has become shorter' -f $a.file) }
            $have += $n
        }
    }
    finally { $f.Close() }
    $script:Reply = $buffer
    @{}
}
