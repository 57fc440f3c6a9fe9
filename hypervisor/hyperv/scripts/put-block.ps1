# consort hyper-v protocol 1: put-block

# put-block writes bytes at an offset and notes how far the file is whole.
function Invoke-Request($a) {
    $path = Get-Stored $a.file
    $sha = [Security.Cryptography.SHA256]::Create()
    $got = [BitConverter]::ToString($sha.ComputeHash($script:Payload)).Replace('-', '').ToLowerInvariant()
    if ($got -cne $a.sha256) { Stop-With 'unavailable' 'the block arrived damaged; send it again' }
    $f = New-Object System.IO.FileStream ('{0}.part' -f $path), ([IO.FileMode]::Open)
    try {
        $f.Position = $a.offset
        $f.Write($script:Payload, 0, $script:Payload.Length)
        $f.Flush($true)
    }
    finally { $f.Close() }
    $note = '{0}.note' -f $path
    $seen = ConvertFrom-Json (Read-Whole $note)
    $seen.offset = $a.offset + $script:Payload.Length
    Write-Whole $note (ConvertTo-Json -InputObject $seen -Compress)
    @{}
}
