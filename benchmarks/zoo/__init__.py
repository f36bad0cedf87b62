"""Networks that train, as people have them: does `gradlab.verdict` leave them alone?"""
